"""`acestep models` and `acestep download`."""

import re

import torch

from tests.support.gguf_files import write_gguf


def test_models_are_listed_with_their_paths(acestep, models):
    code, out, _ = acestep("models", "--models-dir", models, model=False)
    assert code == 0
    assert re.search(r"^✓ turbo  .*\n.*steps 8, shift 3, guidance 1\n +.*acestep-v15-turbo$", out, re.MULTILINE)
    assert re.search(r"^  base  .*\n.*\n +from ACE-Step/acestep-v15-base$", out, re.MULTILINE)
    assert re.search(r"^  vae  .*\n +from ACE-Step/Ace-Step1.5: vae$", out, re.MULTILINE) or "✓ vae" in out
    assert "from Comfy-Org/ace_step_1.5_ComfyUI_files: split_files/vae/ace_1.5_vae.safetensors\n" in out
    assert re.search(r"^✓ tokenizer .* ~16 MB  ", out, re.MULTILINE)
    assert str(models) in out.splitlines()[-2]


def test_gguf_files_are_listed(acestep, tmp_path):
    write_gguf(tmp_path / "acestep-v15-turbo-Q8_0.gguf", "network", {"a": torch.ones(1)}, {})
    write_gguf(tmp_path / "vae" / "vae-BF16.gguf", "vae", {"a": torch.ones(1)}, {})
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    code, out, _ = acestep("models", "--models-dir", tmp_path, model=False)
    assert code == 0 and "broken" not in out
    assert re.search(r"^✓ acestep-v15-turbo-Q8_0.gguf +diffusion model .*GGUF$", out, re.MULTILINE)
    assert re.search(r"^✓ vae-BF16.gguf +VAE .*GGUF$", out, re.MULTILINE)


def test_an_unknown_download_is_refused(acestep):
    code, _, err = acestep("download", "nothing", model=False)
    assert code == 2 and "'nothing'" in err
