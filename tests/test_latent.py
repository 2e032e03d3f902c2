"""The latent autoencoder: shapes, gradients, scale, diffusers as the reference, and its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from vla.contracts import VlaError
from vla.nn.config import AutoencoderConfig
from vla.nn.latent import Autoencoder, detail, psnr_db
from vla.nn.latent_folder import PictureLatents, load
from vla.nn.vision import as_input
from vla.train.autoencode import Autoencoding

TINY = AutoencoderConfig(width=8, latent_channels=4)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(TINY)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), dtype=np.uint8)


def test_every_weight_learns_from_a_reconstruction(model: Autoencoder, pictures: np.ndarray) -> None:
    images = as_input(torch.from_numpy(pictures))
    again, divergence = model.reconstruct(images)
    assert again.shape == images.shape and divergence.shape == (3,)
    ((again - images).square().mean() + divergence.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_latents_are_those_of_diffusers_scaled(model: Autoencoder, pictures: np.ndarray) -> None:
    images = as_input(torch.from_numpy(pictures))
    with torch.no_grad():
        model.fit_scale(images)
        latents = model.encode(images)
        assert latents.shape == (3, 4, 4, 6)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
        plain = AutoencoderKL(
            in_channels=12,
            out_channels=12,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 16, 16),
            latent_channels=4,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        plain.load_state_dict(model.network.state_dict())
        found = plain.encode(torch.nn.functional.pixel_unshuffle(images, 2)).latent_dist
        torch.testing.assert_close(found.mean, latents * model.scale + model.shift, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.logvar, model.network.encode(torch.pixel_unshuffle(images, 2))[1])
        torch.testing.assert_close(found.kl(), model.reconstruct(images)[1], atol=1e-3, rtol=1e-4)
        again = torch.nn.functional.pixel_shuffle(plain.decode(found.mean).sample, 2).clamp(-1, 1)
        torch.testing.assert_close(model.decode(latents), again, atol=1e-4, rtol=1e-4)


def test_psnr(pictures: np.ndarray) -> None:
    noisy = np.clip(pictures.astype(int) + np.random.default_rng(1).integers(-9, 10, pictures.shape), 0, 255)
    images, others = (as_input(torch.from_numpy(one.astype(np.uint8))) for one in (pictures, noisy))
    mean = ((pictures.astype(float) - noisy) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(psnr_db(images, others), 10 * np.log10(255**2 / mean), rtol=1e-5)
    left = torch.zeros(3, 1, 32, 48, dtype=torch.bool)
    left[:2, :, :, :20] = True
    half = ((pictures[:2, :, :20].astype(float) - noisy[:2, :, :20]) ** 2).mean(axis=(1, 2, 3))
    found = psnr_db(images, others, left)
    np.testing.assert_allclose(found[:2], 10 * np.log10(255**2 / half), rtol=1e-5)
    assert found[2].isnan()


def test_detail_is_where_something_small_lies() -> None:
    image = torch.zeros(1, 3, 32, 32)
    image[:, 0, 10:12, 20:23] = 1.0
    found = detail(image)
    assert found.shape == (1, 1, 32, 32) and (found[0, 0] > 0.2).nonzero().tolist() == [
        [v, u] for v in (10, 11) for u in (20, 21, 22)
    ]


def test_its_folder(model: Autoencoder, pictures: np.ndarray, tmp_path: Path) -> None:
    made = PictureLatents(model, TINY, "tidy_desk", "scene", (32, 48), {"steps": 2, "commit": "c"}, "tiny")
    made.save(tmp_path / "autoencoder")
    again = load(str(tmp_path))
    assert (again.env, again.camera, again.pixels, again.provenance["steps"]) == ("tidy_desk", "scene", (32, 48), 2)
    assert "48x32 pixels) to 4 x 4 x 6 latents" in (tmp_path / "autoencoder/README.md").read_text()
    latents = again.encode(pictures)
    torch.testing.assert_close(latents, made.encode(pictures), atol=0.05, rtol=0.05)  # weights of half precision
    assert again.decode(latents).shape == pictures.shape and again.decode(latents).dtype == np.uint8

    with pytest.raises(VlaError, match=r"sees uint8 pictures of 48x32 pixels, and was given uint8 of the shape \[16"):
        again.encode(np.zeros((1, 16, 16, 3), np.uint8))
    with pytest.raises(VlaError, match=r"has latents of the shape \[4, 4, 6\], and not \[4, 6, 4\]"):
        again.decode(torch.zeros(1, 4, 6, 4))
    with pytest.raises(VlaError, match=r"there is no autoencoder\.json in nowhere; train one with"):
        load("nowhere")
    (tmp_path / "autoencoder/model.safetensors").write_bytes(b"other")
    with pytest.raises(VlaError, match="the hashes differ"):
        load(str(tmp_path))


def test_a_width_that_cannot_be_grouped() -> None:
    with pytest.raises(VlaError, match=r"--policy\.width 12 must be a multiple of 8"):
        AutoencoderConfig(width=12).check("policy.")


def test_training_sees_a_part_of_each_picture(pictures: np.ndarray) -> None:
    class Rows:
        def images(self, rows: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(pictures[rows])

    objective = Autoencoding.__new__(Autoencoding)
    rows = np.array([2, 0, 1, 2])
    for crop, shape in ((16, (16, 16)), (40, (32, 40)), (0, (32, 48))):
        objective.recipe = SimpleNamespace(policy_config=replace(TINY, crop=crop))
        seen = objective.batch(Rows(), rows, np.random.default_rng(0))["images"].numpy()
        assert seen.shape == (4, *shape, 3)
        for part, row in zip(seen, rows, strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(pictures[row], (*shape, 3))
            assert (windows == part).all(axis=(-1, -2, -3)).sum() == 1, "a part of its own picture"
