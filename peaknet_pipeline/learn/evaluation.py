"""A model's yield on the validation runs: the count, its record beside the model, and the rule for challengers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.records import make_record, read_json
from peaknet_pipeline.tables import write_json

EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class YieldCount:
    """Frames indexed of frames processed, over the validation runs."""

    indexed: int
    frames: int

    @property
    def value(self) -> float:
        """Indexing yield: frames indexed / frames processed; 0 without frames."""
        return self.indexed / self.frames if self.frames else 0.0


@dataclass(frozen=True)
class Decision:
    """Whether a challenger may become the champion, and why."""

    accepted: bool
    reason: str


def judge_challenger(challenger: YieldCount, champion: YieldCount | None) -> Decision:
    """Accept a challenger whose indexing yield on the validation runs is no worse than the champion's.

    Both must have been measured on equally many frames; without a champion, any measured challenger is
    accepted.
    """
    if challenger.frames == 0:
        return Decision(False, "the challenger was measured on no frames")
    told = f"challenger {challenger.indexed}/{challenger.frames} = {challenger.value:.3f}"
    if champion is None:
        return Decision(True, f"{told}; no champion yet")
    told += f", champion {champion.indexed}/{champion.frames} = {champion.value:.3f}"
    if challenger.frames != champion.frames:
        return Decision(False, f"{told}: measured on different frames")
    accepted = challenger.indexed >= champion.indexed
    return Decision(accepted, f"{told}: {'no worse' if accepted else 'worse'}")


@dataclass(frozen=True)
class Evaluation:
    """How many frames of which runs a model led to a lattice, and when that was measured."""

    runs: tuple[str, ...]
    indexed: int
    frames: int
    made: str

    @property
    def count(self) -> YieldCount:
        """Indexed frames and frames."""
        return YieldCount(self.indexed, self.frames)


def write_evaluation(folder: Path, *, runs: Sequence[str], count: YieldCount, made: str) -> Evaluation:
    """Record a model's yield beside it, in place of the one measured before."""
    evaluation = Evaluation(tuple(runs), count.indexed, count.frames, made)
    write_json(folder / EVALUATION_FILE, asdict(evaluation))
    return evaluation


def read_evaluation(folder: Path) -> Evaluation | None:
    """Return a model's yield, None before it was measured.

    Raises
    ------
    ModelError
        The record is damaged.

    """
    path = folder / EVALUATION_FILE
    if not path.is_file():
        return None
    remedy = "Delete it and compare the models again."
    try:
        return make_record(Evaluation, read_json(path, error=ModelError), where=path, error=ModelError)
    except ModelError as error:
        raise ModelError(f"not a readable evaluation ({error.what})", where=path, remedy=remedy) from error
