"""A search that a test takes through record by record."""

from mpodis.objectives import Activations, Overlap, make_objective
from mpodis.optimise.problem import Problem
from mpodis.optimise.search import Search
from mpodis.sites import site_tensors


def build(mpo, left=2, group="SO", covariance=None, sensitivity=None):
    """The problem of `disentangle(mpo, left=left, ...)`."""
    goal = Overlap(covariance=covariance)
    if sensitivity is not None:
        goal = Activations(covariance=covariance, sensitivity=sensitivity)
    return Problem.build(site_tensors(mpo), left, group=group, objective=goal)


class Stepper:
    """A search with its state; `step` makes a record, `result` is what it would return now."""

    def __init__(self, problem, options, state=None):
        self.search = Search(problem, options, make_objective(options.objective))
        self.state = self.search.begin() if state is None else state
        self._records = self.search.run(self.state)

    def step(self):
        """The next record, or None at the end."""
        return next(self._records, None)

    def finish(self):
        while self.step() is not None:
            pass
        return self.result()

    def result(self):
        return self.search.result(self.state)
