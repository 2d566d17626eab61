"""The demo's raw material: a simulated experiment of five runs, its settings, and which run plays which part."""

from collections.abc import Callable
from pathlib import Path

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.experiment import RunConditions
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.store.keys import RunKey
from peaknet_pipeline.store.layout import Store

NAME = "demo"
SEED = 20
FRAMES = 60

CONDITIONS = {
    1: ("normal, for training", RunConditions()),
    2: ("blank-heavy, for training", RunConditions(hit_fraction=0.15)),
    3: ("stronger background, for training", RunConditions(background_factor=2.5)),
    4: ("normal, for validation", RunConditions(background_factor=1.5)),
    5: ("stronger background, never seen before evaluation", RunConditions(background_factor=2.0)),
}
"""What each run is like and what it is for."""

EXPERIMENT_YAML = """\
# Settings of this experiment; an unknown name is answered with all that are known.
geometry: demo.geom
cell: demo.cell
finder: {threshold: 70, min_snr: 5, min_pix: 2, max_pix: 60, local_bg_radius: 4}
"""

PIPELINE_YAML = """\
# Settings of what belongs to all runs together.
training_set: {validation_runs: [demo-r0004], test_runs: [demo-r0005]}
"""


def demo_runs() -> list[str]:
    """Return the partition keys of the demo's runs."""
    return [str(RunKey(NAME, number)) for number in CONDITIONS]


def prepare_demo(store: Store, *, say: Callable[[str], None], n_frames: int = FRAMES) -> None:
    """Simulate the runs that aren't there yet and write the settings unless a user has written their own."""
    folder = store.raw_root / NAME
    experiment = demo_experiment(SEED, name=NAME)
    if not (folder / "demo.geom").is_file():
        write_experiment_files(experiment, folder)
    _write_once(folder / "experiment.yaml", EXPERIMENT_YAML)
    _write_once(store.root / "pipeline.yaml", PIPELINE_YAML)
    for number, (story, conditions) in CONDITIONS.items():
        path = folder / f"r{number:04d}.h5"
        if path.is_file():
            continue
        say(f"  simulating {path.name}: {n_frames} frames, {story}")
        with progress_bar(path.name) as progress:
            simulate_run(
                experiment,
                path,
                n_frames=n_frames,
                seed=SEED + number,
                run_number=number,
                conditions=conditions,
                progress=progress,
            )


def _write_once(path: Path, text: str) -> None:
    if not path.exists():
        write_file(path, text)
