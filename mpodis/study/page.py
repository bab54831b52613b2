"""stub to be replaced"""


def write_page(study): ...
