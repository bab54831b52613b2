"""Code blocks of README and the documentation. Run as a script, it executes those of some pages.

A block behind the line ``<!-- not run: REASON -->`` is not executed. A ``text`` block that follows
a Python or shell block is what that block prints, see `same_output`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>[^\n]+?) -->\n\s*?)?"
    r"^(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^(?P=indent)```$"
    r"(?:\s*?^(?P=indent)```text\n(?P<output>.*?)^(?P=indent)```$)?",
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    line: int
    """The line of the page before the code."""
    not_run: str | None
    """Why, for a block that is not executed."""
    output: str | None

    @property
    def executed(self) -> bool:
        return self.language in ("python", "bash") and self.not_run is None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            found["language"],
            textwrap.dedent(found["code"]),
            text.count("\n", 0, found.start("code")),
            found["reason"],
            found["output"] and textwrap.dedent(found["output"]),
        )
        for found in BLOCK.finditer(text)
    ]


def same_output(expected: str, printed: str) -> bool:
    """The same words; numbers within a tenth, or .02, of those on the page, and any time.

    A line ``...`` stands for any number of lines.
    """
    pattern, values = [], []
    for line in expected.strip().splitlines():
        if line.strip() == "...":
            pattern.append(r"[\s\S]*?")
            continue
        spread = r"\s+".join(re.escape(word) for word in NUMBER.sub("\0", line).split())
        values += [(m.group(), line[m.end() :]) for m in NUMBER.finditer(line)]
        pattern.append(spread.replace(re.escape("\0"), "\0"))
    whole = r"\s*".join(pattern).replace("\0", f"({NUMBER.pattern})")
    match = re.fullmatch(rf"\s*{whole}\s*", printed)
    if not match:
        return False
    return all(
        re.match(r" ?(?:ms|s|min)\b", behind)
        or math.isclose(_value(here), _value(there), rel_tol=0.1, abs_tol=0.02)
        for (here, behind), there in zip(values, match.groups(), strict=True)
    )


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def execute(page: Path) -> None:
    """Run the blocks of a page in order: Python in one namespace, shell lines in this folder."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if not block.executed:
            continue
        if block.language == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * block.line + block.code, page, "exec"), names)
            text = printed.getvalue()
        else:
            command = ["bash", "-euo", "pipefail", "-c", block.code]
            done = subprocess.run(command, capture_output=True, text=True)
            text = done.stdout
            if done.returncode:
                raise RuntimeError(f"{block.code}\nexits with {done.returncode}:\n{done.stderr}")
        if block.output is not None and not same_output(block.output, text):
            raise AssertionError(f"{page.name}, line {block.line}: printed is\n{text}")


def _execute_apart(page: Path, results) -> None:
    begin, error = time.perf_counter(), ""
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            execute(page)
        except BaseException:
            error = traceback.format_exc()
        os.chdir("/")
    results.put({"error": error, "seconds": time.perf_counter() - begin})


def main(report: str, *pages: str) -> None:
    """Execute each page in a process of its own, begun when the libraries have been imported."""
    import matplotlib

    matplotlib.use("Agg")
    import pandas  # noqa: F401, what the pages import late, each in its own process
    import qiskit_ibm_runtime.fake_provider  # noqa: F401
    import quimb.tensor  # noqa: F401
    import sklearn.neural_network  # noqa: F401
    import torch._dynamo  # noqa: F401, the first step of an optimiser does it

    import mpodis
    import mpodis.nn
    import mpodis.plots
    import mpodis.quantum

    context = multiprocessing.get_context("fork")
    found: dict = {"package": mpodis.__file__, "pages": {}}
    for page in pages:
        results = context.SimpleQueue()
        process = context.Process(target=_execute_apart, args=(Path(page), results))
        process.start()
        found["pages"][page] = results.get()
        process.join()
    Path(report).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
