"""The experiment `dense`."""

from paper_runs import check_tables_and_figures


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("dense"))
