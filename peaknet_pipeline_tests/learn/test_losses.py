"""Losses against their definitions, written out in numpy."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.learn.losses import dice_loss, distillation_loss, focal_loss


def example(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 3, (2, 1, 8, 8)).astype(np.float32))
    label = torch.from_numpy(rng.choice([0, 1, 255], (2, 8, 8), p=[0.7, 0.2, 0.1]).astype(np.uint8))
    return logits, label


def test_focal_loss_follows_its_definition() -> None:
    logits, label = example()
    p = 1 / (1 + np.exp(-logits[:, 0].numpy().astype(float)))
    terms = []
    for probability, truth in zip(p.ravel(), label.numpy().ravel(), strict=True):
        if truth == 1:
            terms.append(-0.75 * (1 - probability) ** 2 * np.log(probability))
        elif truth == 0:
            terms.append(-0.25 * probability**2 * np.log(1 - probability))
    assert float(focal_loss(logits, label)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_ignored_pixels_never_matter() -> None:
    logits, label = example()
    changed = torch.where((label == 255)[:, None], torch.full_like(logits, 80.0), logits)
    for loss in (focal_loss, dice_loss):
        torch.testing.assert_close(loss(changed, label), loss(logits, label))


def test_extreme_logits_stay_finite_with_finite_gradients() -> None:
    logits = torch.tensor([-300.0, 300.0, -300.0, 300.0]).reshape(1, 1, 2, 2).requires_grad_()
    label = torch.tensor([[0, 0], [1, 1]], dtype=torch.uint8)[None]
    loss = focal_loss(logits, label) + dice_loss(logits, label)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())


def test_nothing_but_ignore_gives_no_loss() -> None:
    logits, label = example()
    assert float(focal_loss(logits, torch.full_like(label, 255))) == 0


def test_dice_rewards_overlap() -> None:
    _, label = example()
    right = torch.where(label == 1, 20.0, -20.0)[:, None]
    assert float(dice_loss(right, label)) == pytest.approx(0, abs=1e-3)
    assert float(dice_loss(-right, label)) > 0.9


def test_distillation_loss_follows_its_definition() -> None:
    student, _ = example(1)
    teacher, _ = example(2)
    good = torch.from_numpy(np.random.default_rng(3).random((2, 8, 8)) > 0.2)
    s, t, g = (x.numpy().astype(float) for x in (student[:, 0], teacher[:, 0], good))
    squared = ((s - t) ** 2)[g > 0].mean()
    p, q = 1 / (1 + np.exp(-t / 2)), 1 / (1 + np.exp(-s / 2))
    divergence = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))[g > 0].mean()
    argmax = torch.where(good, (teacher[:, 0] > 0).to(torch.uint8), 255)
    expected = 0.4 * squared + 0.4 * 4 * divergence + 0.2 * float(focal_loss(student, argmax))
    assert float(distillation_loss(student, teacher, good)) == pytest.approx(expected, rel=1e-5)


def test_only_the_student_gets_gradients() -> None:
    student, teacher = example(1)[0].requires_grad_(), example(2)[0].requires_grad_()
    distillation_loss(student, teacher, torch.ones(2, 8, 8, dtype=torch.bool)).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_student_like_its_teacher_has_only_the_focal_part() -> None:
    teacher = torch.where(example()[0] > 0, 30.0, -30.0)
    loss = distillation_loss(teacher, teacher, torch.ones(2, 8, 8, dtype=torch.bool))
    assert float(loss) == pytest.approx(0, abs=1e-6)
