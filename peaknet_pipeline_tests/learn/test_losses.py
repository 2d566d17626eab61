"""Losses against their definitions, written out in numpy."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.learn.losses import (
    centre_offsets,
    dice_loss,
    distillation_loss,
    focal_loss,
    ignore_lone_pixels,
    offset_loss,
)


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
    assert np.abs(s).max() > 8
    squared = ((np.clip(s, -8, 8) - np.clip(t, -8, 8)) ** 2)[g > 0].mean()
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


def test_offsets_lead_from_every_peak_pixel_to_the_weighted_centre() -> None:
    label = torch.zeros(2, 12, 12, dtype=torch.uint8)
    label[0, 3:5, 3:6] = 1
    label[1, 8, 8] = label[1, 9, 9] = 1
    weight = torch.ones(2, 1, 12, 12)
    weight[1, 0, 9, 9] = 3.0
    offsets = centre_offsets(label, weight)
    for crop, centre in ((0, (3.5, 4.0)), (1, (8.75, 8.75))):
        for ss, fs in (label[crop] == 1).nonzero().tolist():
            reached = (ss + float(offsets[crop, 0, ss, fs]), fs + float(offsets[crop, 1, ss, fs]))
            assert reached == pytest.approx(centre, abs=1e-5)
    assert float(offsets[:, :, 0].abs().max()) == 0


def test_offset_loss_counts_peak_pixels_alone() -> None:
    label = torch.zeros(1, 6, 6, dtype=torch.uint8)
    label[0, 2, 2] = 1
    target = torch.zeros(1, 2, 6, 6)
    logits = torch.full((1, 3, 6, 6), 9.0)
    logits[:, 1:, 2, 2] = 0
    assert float(offset_loss(logits, target, label)) == 0
    logits[:, 1, 2, 2] = 2.0
    assert float(offset_loss(logits, target, label)) == pytest.approx((2.0 - 0.25) / 2)


def test_only_a_high_background_pixel_without_a_high_neighbour_is_ignored() -> None:
    significance, label = torch.zeros(1, 6, 8), torch.zeros(1, 6, 8, dtype=torch.uint8)
    significance[0, 1, 1] = 50.0  # hot
    significance[0, 4, 4], significance[0, 5, 5] = 4.0, 3.5  # touch at a corner
    significance[0, 1, 6], label[0, 1, 6] = 9.0, 1  # a peak of one pixel
    ignored = ignore_lone_pixels(label, significance, 3.0)
    assert [tuple(at) for at in (ignored == 255).nonzero().tolist()] == [(0, 1, 1)]
    assert ignored[0, 1, 6] == 1
