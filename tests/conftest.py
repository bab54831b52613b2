"""What holds for every test: no display, no data of this machine, no global random state."""

import gc
import os
import signal
import sys
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"  # before matplotlib is imported; subprocesses inherit it
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # it compiles every operation on a new shape
os.environ["NUMBA_DISABLE_JIT"] = "1"  # quimb's functions compile longer than they run

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("mpodis", derandomize=True, deadline=None)
settings.load_profile("mpodis")

TESTS = Path(__file__).parent

SLOW = {
    "test_backends::test_the_backend_dtype_and_device_stay[compress-jax-complex128]",
    "test_backends::test_the_backend_dtype_and_device_stay[fit_core, weighted-jax-complex128]",
    "test_baselines::test_each_distance_prefers_its_own_mpo[2-shape1]",
    "test_boundary_truncation::test_time_and_memory_are_as_estimated",
    "test_checkpoint::test_killed_processes",
    "test_checkpoint::test_stopped_after_any_sweep[activations, Fortran]",
    "test_checkpoint::test_stopped_after_any_sweep[complex L-BFGS]",
    "test_checkpoint::test_stopped_after_any_sweep[grown]",
    "test_checkpoint::test_stopped_after_any_sweep[random starts]",
    "test_checkpoint_directory::test_checkpoints_of_long_runs_are_no_larger_and_go_on_the_same[more1]",
    "test_checkpoint_directory::test_checkpoints_of_long_runs_are_no_larger_and_go_on_the_same[more2]",
    "test_choose::test_a_factorization_overlaps_fully_with_itself_at_any_size",
    "test_choose::test_estimates_of_thousands_of_sites_take_few_steps[2000-8]",
    "test_cli::test_a_layer_from_the_file_to_the_report",
    "test_cli::test_ctrl_c_stops_a_job_without_results",
    "test_cli::test_resume_of_the_main_job",
    "test_cli_refusals::test_a_real_process_fails_in_one_line_too",
    "test_cli_runs::test_an_operator_too_large_to_be_dense",
    "test_compilation::test_savings_are_those_of_the_transpiler",
    "test_compilation::test_the_joint_circuit_is_the_product_up_to_tol",
    "test_compile_runs::test_a_killed_process_loses_nothing",
    "test_compile_runs::test_a_run_goes_on_from_any_checkpoint_with_the_same_gates[kicks]",
    "test_compile_runs::test_a_run_goes_on_from_any_checkpoint_with_the_same_gates[state]",
    "test_compile_targets::test_a_state_is_one_row_of_norm_one[quimb gates apart]",
    "test_compile_targets::test_a_unitary_acts_on_kets[quimb gates apart]",
    "test_compiling::test_a_long_chain_of_a_unitary_never_becomes_dense",
    "test_compiling::test_the_goal_of_long_states_is_not_rounding",
    "test_compiling::test_the_result_is_what_it_says[MPO]",
    "test_compiling::test_the_result_is_what_it_says[MPS]",
    "test_coupling::test_a_compiled_circuit_of_a_grid_against_dense_algebra[boundary]",
    "paper/test_dense::test_both_layers_are_replaced_within_their_share",
    "paper/test_dense::test_circuits_are_at_least_what_an_mpo_is_on_training_images",
    "paper/test_dense::test_circuits_of_few_parameters_are_at_least_as_near_as_their_core",
    "paper/test_dense::test_tables_and_figures_of_the_wide_network",
    "test_dense::test_memory_is_what_was_estimated[(10, 1, False, 'float64', None)]",
    "test_dense::test_memory_is_what_was_estimated[(10, 4, True, 'float64', None)]",
    "test_dense::test_memory_is_what_was_estimated[(10, 8, False, 'float64', 0)]",
    "test_dense::test_memory_is_what_was_estimated[(12, 4, False, 'float64', None)]",
    "test_device::test_noise_costs_and_fitted_bricks_cost_less",
    "test_device::test_without_noise_only_shots_make_a_difference[tomography-all to all]",
    "test_disentangle::test_gates_as_wide_as_the_operator_reach_the_bound[SO-4]",
    "test_disentangle::test_planted_unitary_circuits_are_found[1]",
    "test_disentangle_engines::test_a_drop_of_the_truth_brings_the_last_good_gates_back",
    "test_disentangle_engines::test_a_network_that_does_not_fit_is_sliced_and_its_slices_sent_to_an_executor",
    "test_disentangle_engines::test_single_precision_sweeps_end_at_double_precision_figures",
    "test_disentangle_engines::test_the_error_of_the_overlap_does_not_depend_on_the_norm_of_the_operator",
    "test_disentangle_sides::test_right_is_the_mirror_image_of_left",
    "test_docstrings::test_examples[mpodis.study.figures]",
    "test_docstrings::test_examples[mpodis.study.study]",
    "test_documentation::test_code_runs[howto/cluster.md]",
    "test_documentation::test_code_runs[howto/depth.md]",
    "test_documentation::test_code_runs[howto/study.md]",
    "test_documentation::test_code_runs[reference/command-line.md]",
    "test_documentation::test_code_runs[reference/quantum.md]",
    "test_documentation::test_code_runs[tutorials/layer.md]",
    "test_engines_at_size::test_a_planted_operator_of_32_sites_is_found_again",
    "test_engines_at_size::test_no_true_overlap_falls_between_checks",
    "test_engines_at_size::test_resident_memory_stays_within_what_the_chooser_predicts",
    "test_explorer_browser::test_a_slider_is_moved_and_the_figure_changes",
    "test_export_files::test_openqasm_keeps_matrix_and_sign[5b complex, 5 wires]",
    "test_export_files::test_openqasm_keeps_matrix_and_sign[5b, 7 wires]",
    "test_export_files::test_openqasm_keeps_matrix_and_sign[6b, 6 wires]",
    "test_faults::test_nothing_is_lost_or_wrong_in_silence[Ctrl-C twice]",
    "test_faults::test_nothing_is_lost_or_wrong_in_silence[SIGKILL]",
    "test_faults::test_nothing_is_lost_or_wrong_in_silence[SIGTERM]",
    "test_faults::test_nothing_is_lost_or_wrong_in_silence[two processes]",
    "test_golden::test_a_search_goes_the_way_it_went[dense, eight wires]",
    "test_golden::test_a_search_goes_the_way_it_went[grown, 64 x 64]",
    "test_golden::test_a_search_goes_the_way_it_went[grown, sixteen layers]",
    "test_golden::test_a_search_goes_the_way_it_went[prune]",
    "test_golden::test_a_search_goes_the_way_it_went[sensitivity]",
    "test_golden::test_a_search_goes_the_way_it_went[transverse]",
    "test_golden::test_a_search_goes_the_way_it_went[tree]",
    "test_hamiltonians::test_a_fitted_formula_is_never_behind_those_of_fixed_order[xxz-6]",
    "test_hamiltonians::test_the_error_of_a_long_time_is_a_bound",
    "test_hybrid_linear::test_two_processes_train_as_one",
    "paper/test_implicit::test_the_command_needs_no_qiskit",
    "test_layer_job::test_a_layer_job_that_dies_ends_the_same",
    "test_layer_job::test_names_of_a_file_cannot_write_the_page",
    "test_locks::test_two_searches_that_begin_in_one_directory_are_not_mixed",
    "test_main_job::test_a_job_that_dies_again_and_again_ends_the_same",
    "test_main_job::test_a_killed_process_ends_the_same",
    "test_measures::test_400_sites_of_huge_norm[True]",
    "test_network::test_slices_add_up_to_the_whole[processes]",
    "test_neuron_order::test_a_search_is_never_worse_and_its_core_has_its_loss[False-False-True-True-True]",
    "test_neuron_order::test_a_search_is_never_worse_and_its_core_has_its_loss[False-True-True-True-False]",
    "test_notebooks::test_runs[01_entanglement]",
    "test_notebooks::test_runs[02_large_depth]",
    "test_notebooks::test_runs[03_implicit]",
    "test_notebooks::test_runs[04_landscape]",
    "test_notebooks::test_runs[05_quantum_execution]",
    "test_notebooks::test_runs[06_quench]",
    "test_notebooks::test_runs[07_evolution_operators]",
    "test_notebooks::test_runs[08_image_as_state]",
    "test_notebooks::test_runs[09_trained_layer]",
    "test_notebooks::test_runs[10_scaling_study]",
    "test_operators::test_every_form_is_the_same_operator[jax]",
    "test_own_layer::test_accuracy_of_a_torch_network",
    "test_own_layer::test_entropies_and_accuracy_of_a_scikit_learn_network",
    "test_pareto::test_an_interrupted_run_continues",
    "test_progress::test_a_notebook_gets_a_widget_that_ends_full",
    "test_replace_layers_transformer::test_all_its_linear_layers_are_compressed_healed_and_disentangled",
    "paper/test_resynthesis::test_counts_fall_and_what_is_held_is_held",
    "paper/test_resynthesis::test_merged_neighbours_cost_less",
    "paper/test_resynthesis::test_tables_and_figures_of_a_small_run",
    "test_resynthesis::test_a_gate_on_three_wires_becomes_gates_on_two[SO-1-SO-14]",
    "test_resynthesis::test_weak_gates_are_removed_within_the_tolerance[0.01]",
    "paper/test_running::test_cases_are_stored_and_not_computed_again[2]",
    "test_side_by_side::test_hash_seeds_and_threads_change_no_bit",
    "test_side_by_side::test_processes",
    "test_slurm_script::test_a_study_is_computed_by_a_job_that_is_started_again",
    "test_slurm_script::test_scheduler_workers_and_study_are_started_and_ended",
    "test_stages::test_a_search_with_time_left_goes_on_from_kicks[auto]",
    "test_stages::test_deeper_is_never_worse_with_leaps",
    "test_stages::test_interrupted_anywhere_it_ends_the_same",
    "test_stages::test_kicks_interrupted_anywhere_end_the_same",
    "test_stages::test_kicks_turn_a_part_of_the_best_gates[auto]",
    "test_stages::test_out_of_time_anywhere[auto-True]",
    "test_stages::test_out_of_time_anywhere[grown-True]",
    "test_study::test_many_records_are_read_in_little_time_and_space",
    "test_study_commands::test_ctrl_c_says_how_to_go_on_and_keeps_no_half_search",
    "test_study_dask::test_a_case_that_kills_its_workers_fails_alone",
    "test_study_dask::test_a_scheduler_that_is_lost_is_named_and_the_same_call_goes_on",
    "test_study_dask::test_a_worker_that_is_killed_and_one_that_comes_lose_nothing",
    "test_study_processes::test_a_study_that_is_killed_at_any_moment_ends_the_same[1]",
    "test_study_processes::test_a_study_that_is_killed_at_any_moment_ends_the_same[20]",
    "test_study_processes::test_ctrl_c_and_sigterm_end_at_once[SIGTERM]",
    "test_study_processes::test_workers_on_a_disk_that_is_full",
    "paper/test_table1::test_tables_and_figures_of_a_small_run",
    "test_time_limits::test_a_limit_that_is_not_reached_changes_nothing[site_order, loss]",
    "test_workers::test_workers_end_with_a_parent_that_is_ended[pool of a thread-9]",
    "test_workers::test_workers_end_with_a_parent_that_is_ended[pool-2]",
}
"""Tests marked slow, or some of their cases: run by ``./scripts/test --all``, not by default.

All stand here and not as marks in their files, so that the default run can be weighed in one place.
A test of more than about two seconds belongs here, unless it is the only one of its kind.
"""

LONGEST = (
    "test_documentation",
    "test_study_processes",
    "test_faults",
    "test_study_dask",
    "test_notebooks",
    "test_compiling",
    "test_docstrings",
    "test_hamiltonians",
    "test_odd_arrays",
    "test_backends",
    "test_compile_runs",
    "test_resynthesis",
    "test_checkpoint",
    "test_main_job",
    "test_stages",
    "test_disentangle",
    "test_golden",
    "test_engines_at_size",
    "test_export_files",
    "paper/test_dense",
    "paper/test_resynthesis",
    "paper/test_table2",
    "paper/test_running",
    "paper/test_trained",
    "test_reproduce",
    "test_replace_layers_transformer",
    "test_layer_job",
    "test_hybrid_linear",
    "test_compilation",
    "test_pareto",
    "test_choose",
    "test_device",
    "test_dense",
    "test_cli",
)
"""Files that take longest: begun first, or one of two workers would end with them alone."""


def file_of(item) -> str:
    """Path of its file in this folder, without suffix; of files elsewhere (doctests) the name."""
    path = item.path.with_suffix("")
    return path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else path.name


STALE = pytest.StashKey[list[str]]()


@pytest.hookimpl(tryfirst=True)  # before -m "not slow" deselects
def pytest_collection_modifyitems(config, items):
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(file_of(item), len(rank)))  # files stay together
    collected = set()
    for item in items:
        both = (item.name, getattr(item, "originalname", item.name))  # doctests have one
        names = {f"{file_of(item)}::{name}" for name in both}
        collected |= names
        if names & SLOW:
            item.add_marker(pytest.mark.slow)
    choose_what_is_traced(items)
    files = {file_of(item) for item in items}
    config.stash[STALE] = sorted(
        name
        for name in SLOW - collected
        if (file := name.partition("::")[0]) in files or not (TESTS / f"{file}.py").exists()
    )


TRACED = pytest.StashKey[bool]()


def choose_what_is_traced(items):
    """Of a table of cases, trace the first: a tracer makes Python up to twice as slow."""
    seen = set()
    for item in items:
        if any(map(item.get_closest_marker, ("slow", "no_cover"))):
            continue
        test = item.nodeid.partition("[")[0]
        item.stash[TRACED] = test not in seen
        seen.add(test)


class Tracer:
    """That of pytest-cov: on while a traced test is set up and called, off for all else.

    In a worker of xdist two tracers lie one on the other, and ``no_cover`` takes off only one.
    """

    latest = None

    @classmethod
    def put(cls, on: bool) -> None:
        cls.latest = sys.gettrace() or cls.latest  # pytest-cov makes another after `no_cover`
        sys.settrace(cls.latest if on else None)


def traced(item, phase):
    if not item.config.pluginmanager.hasplugin("_cov"):
        return (yield)
    untraced = phase == "call" and item.get_closest_marker("no_cover") is not None
    Tracer.put(item.stash.get(TRACED, True) and not untraced)
    try:
        return (yield)
    finally:
        Tracer.put(False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    return (yield from traced(item, "setup"))


@pytest.hookimpl(wrapper=True, trylast=True)  # inside pytest-cov's
def pytest_runtest_call(item):
    return (yield from traced(item, "call"))


def pytest_collection_finish():
    """What was imported stays: it need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)  # by default every 700 objects, which takes 5 % of the time


@pytest.fixture
def stale_slow_tests(request) -> list[str]:
    """Entries of SLOW that name no test; needs files that are collected whole."""
    if any("::" in argument for argument in request.config.args):
        pytest.skip("single tests were asked for")
    return request.config.stash[STALE]


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("MPODIS_DATA", raising=False)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def _global_random_state_untouched():
    """Randomness enters by ``seed=``: numpy's global generator is as before, after every test."""
    before = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    yield
    after = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    same = after["pos"] == before["pos"] and np.array_equal(after["key"], before["key"])
    assert same, "numpy's global random state was used"


@pytest.fixture
def torch_generator_untouched():
    """The same for torch, in the files that ask for it: importing torch takes a second."""
    import torch

    before = torch.random.get_rng_state()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator was used"


@pytest.fixture
def mpodis(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder; (exit status, stdout, stderr)."""
    from mpodis import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mpodis", *map(str, arguments)])
        code, before = 0, signal.getsignal(signal.SIGINT)
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGINT, before)  # an interrupted process leaves it to the system
        return code, *capsys.readouterr()

    return call
