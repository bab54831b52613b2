"""The examples in docstrings do what they say."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mpodis"
WITH_EXAMPLES = [
    ".".join(["mpodis", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.no_cover  # what is public has tests of its own, which are traced
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    reported = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=options)
    for example in doctest.DocTestFinder().find(importlib.import_module(name)):
        runner.run(example, out=reported.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(reported)
    assert not list(tmp_path.iterdir()), "an example leaves files behind"
