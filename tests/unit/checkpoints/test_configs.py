import pytest

from acestep_core.checkpoints.configs import network_config


@pytest.mark.parametrize(
    "stated, flag",
    [({}, False), ({"is_lego_sft": True}, True), ({"is_lego_sft": "true"}, True), ({"is_lego_sft": "False"}, False)],
)
def test_a_model_trained_on_stems_says_so_in_its_config_or_as_a_word_in_a_files_metadata(stated, flag):
    assert network_config({}, stated).is_lego_sft is flag
