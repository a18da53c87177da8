import torch

from acestep_core.callbacks import Callbacks
from acestep_core.edit.edit import Edit
from acestep_core.sampling.prepare import prepare
from acestep_core.sampling.request import SampleRequest
from acestep_core.sampling.settings import TURBO, SamplingSettings
from acestep_core.text.encoder import TextCondition
from tests.support import tiny
from tests.support.tiny import draw

TEXT = TextCondition(draw(1, 3, 24), draw(1, 4, 24, seed=1), "", "", text_only=draw(1, 5, 24, seed=2))


def test_conditions_are_encoded_before_the_loop_and_the_text_alone_at_the_switch():
    network, reports, encoded = tiny.model(), [], []
    network.encoder.register_forward_hook(lambda *_: encoded.append(len(reports)))
    sampling = SamplingSettings(steps=4).resolve(TURBO)
    device, callbacks = torch.device("cpu"), Callbacks(progress=reports.append)
    for options, steps in (({}, [0]), ({"strength": 0.5}, [0, 2]), ({"strength": 0.0}, [0]), ({"blend": 0.5}, [0, 0])):
        reports.clear(), encoded.clear()
        edit = Edit("cover", draw(1, 140, 64), use_codes=False, **options)
        plan = prepare(network, SampleRequest(network.config, sampling, [1], edit=edit), [TEXT], device, callbacks)
        assert encoded == [0] * steps.count(0)
        assert plan.run(callbacks).shape == (1, 140, 64) and encoded == steps
