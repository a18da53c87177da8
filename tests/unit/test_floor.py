"""What the floor counts, against what is known of single operations and of the released networks."""

import pytest
import torch
import torch.nn.functional as F

from acestep_core.models.snake import Snake
from benchmarks import floor
from benchmarks.floor import Work, counted
from benchmarks.stages import size

PEAK, BANDWIDTH = 100.0, 10.0


def made(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def test_products_and_bytes_of_an_operation():
    a, b, table, rows = made(3, 4), made(4, 5), made(1000, 2), torch.zeros(6, dtype=torch.long, device="meta")
    with counted(PEAK, BANDWIDTH) as counter:
        (a @ b).t().view(5, 3)
    assert counter.work == Work(120, 4 * (12 + 20 + 15), 1, 4 * 47 / BANDWIDTH)
    with counted(PEAK, 1e9) as counter:
        torch.mm(a, b)
    assert counter.work.seconds == 120 / PEAK
    with counted(PEAK, BANDWIDTH) as counter:
        a.expand(7, 3, 4).add(1)  # what is repeated is read once
        a.mul_(2)
        F.embedding(rows, table)
    assert (counter.work.flops, counter.work.launches) == (0, 3)
    assert counter.work.bytes == 4 * (12 + 7 * 12) + 4 * (12 + 12) + 4 * (12 + 12)


def test_attention_and_norms_are_one_operation():
    q, k, v = made(2, 4, 10, 8), made(2, 4, 30, 8), made(2, 4, 30, 6)
    with counted(PEAK, BANDWIDTH) as counter:
        assert F.scaled_dot_product_attention(q, k, v).shape == (2, 4, 10, 6)
    assert counter.work.flops == 2 * (2 * 4 * 10 * 30) * (8 + 6) and counter.work.launches == 1
    assert counter.work.bytes == 4 * (q.numel() + k.numel() + v.numel() + 2 * 4 * 10 * 6)
    with counted(PEAK, BANDWIDTH) as counter:
        F.rms_norm(q, (8,), made(8), 1e-6)
    assert counter.work.launches == 1 and counter.work.bytes == 4 * (2 * q.numel() + 8)
    activation = Snake(4, "meta", None)
    with counted(PEAK, BANDWIDTH) as counter:
        activation(made(1, 4, 240))
    tables = 4 * 2 * 4  # exp twice, a sum and 1 / x, each reading and writing a number for each channel
    assert counter.work.launches == 5 and counter.work.bytes == 4 * (2 * 4 * 240 + 2 * 4 + tables)


def test_released_networks():
    released = size("2b")
    whole = floor.decode(released, torch.bfloat16, 20, 1e12, 1e12)
    assert whole.flops / 20 == pytest.approx(121e9, rel=0.01)
    # A song in tiles costs their overlaps more.
    assert 1 < floor.decode(released, torch.bfloat16, 60, 1e12, 1e12).flops / whole.flops / 3 < 1.06
    works = [floor.sample(released, torch.bfloat16, seconds, 1e12, 1e12) for seconds in (120, 240, 360)]
    first, second, third = (work.flops for work in works)
    # Attention of every other layer grows with the square of the length, the rest with the length.
    square = 8 * 12 * 4 * (120 * 25 / 2) ** 2 * released.network.hidden_size
    assert first - 2 * second + third == pytest.approx(2 * square, rel=0.01)
    assert works[0].launches == works[2].launches > 8 * 1000


@pytest.mark.parametrize("arguments", [[], ["--size", "small", "--dtype", "float32", "--tflops", "0.1"]])
def test_the_table(monkeypatch, capsys, arguments):
    monkeypatch.setattr("sys.argv", ["floor", "--seconds", "30", *arguments])
    floor.main()
    rows = [line.split("|")[2:-1] for line in capsys.readouterr().out.splitlines()[-5:-1]]
    assert [row[0].strip() for row in rows] == ["encode", "sample", "decode", "whole song"]
    floors, products = ([float(row[column].split()[0]) for row in rows] for column in (1, 2))
    assert floors[3] == pytest.approx(sum(floors[:3]), abs=0.2)
    assert all(least <= whole for least, whole in zip(products, floors, strict=True))
