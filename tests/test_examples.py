"""The method on one page: its schedule, its process and its sampler keep the laws of the paper."""

import importlib.util
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).parents[1] / "examples" / "cvdm_on_one_page.py"


@pytest.fixture(scope="module")
def page():
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("cvdm_on_one_page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gamma_falls_from_one_to_nearly_nothing_and_beta_is_its_rate(page):
    schedule, condition = page.Schedule().double(), torch.randn(1, 2, 8, 8, dtype=torch.float64)
    times = torch.linspace(0, 1, 2001, dtype=torch.float64)
    rate, (clock, speed, _) = schedule.rate(condition)[..., None], schedule.clock(times)
    gamma = torch.exp(-rate * clock)
    assert torch.all(gamma.diff(dim=-1) < 0)
    assert torch.all(gamma[..., 0] == 1) and torch.all(
        gamma[..., -1] <= torch.exp(torch.tensor(-page.RATE_RANGE[0])) + 1e-12
    )
    measured = torch.gradient(gamma, spacing=(times,), dim=-1)[0]
    torch.testing.assert_close(
        measured[..., 1:-1], (-rate * speed * gamma)[..., 1:-1], rtol=1e-2, atol=1e-3
    )


def test_v_gives_the_clean_image_back(page, monkeypatch):
    clean, noise, exponent = (
        page.draw_discs(2),
        torch.randn(2, 1, page.SIDE, page.SIDE),
        torch.full((2, 1, 1, 1), 0.7),
    )
    gamma = torch.exp(-exponent)
    denoiser = page.Denoiser()
    monkeypatch.setattr(
        denoiser, "forward", lambda *_: gamma.sqrt() * noise - (1 - gamma).sqrt() * clean
    )
    torch.testing.assert_close(
        denoiser.clean(page.add_noise(clean, exponent, noise), None, exponent),
        clean,
        atol=1e-5,
        rtol=0,
    )


def test_the_sampler_ends_at_what_the_denoiser_sees(page, monkeypatch):
    clean, denoiser = page.draw_discs(1), page.Denoiser()
    monkeypatch.setattr(denoiser, "clean", lambda *_: clean)
    samples = page.draw_samples(page.Schedule(), denoiser, page.measure(clean), 3)
    torch.testing.assert_close(samples, clean.expand_as(samples), atol=1e-5, rtol=0)


def test_it_runs_and_draws_its_figure(page, tmp_path, capsys):
    page.main(["--steps", "3", "--samples", "2", "--out", str(tmp_path / "cvdm.png")])
    assert (tmp_path / "cvdm.png").read_bytes().startswith(b"\x89PNG")
    assert "right, much noise: spread" in capsys.readouterr().out
