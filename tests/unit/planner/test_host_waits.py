"""Waits of the planner's loops for a simulated CUDA device, and their transfers, counted."""

import torch

from acestep_core.planner import decode_batch, network, text_loop
from acestep_core.planner.decode_batch import TextRow
from acestep_core.planner.decoding import generate_tokens
from acestep_core.planner.grammar import Grammar
from acestep_core.planner.load_planner import Planner
from acestep_core.planner.metadata_text import FIELDS
from acestep_core.planner.network import PlannerNetwork
from acestep_core.planner.token_sampling import TokenSampling
from acestep_core.runtime.placement import Resident
from tests.support import simulated_cuda, tiny_planner, tiny_text

tiny_tokenizer_dir, vocabulary = tiny_text.tiny_tokenizer_dir, tiny_planner.vocabulary

ALL_BUT_ONE = frozenset(FIELDS) - {"timesignature"}
TO_COPY = torch.ops.aten._to_copy.default
SIMULATED = simulated_cuda.SimulatedTensor


class Traffic:
    """Counts the operations that make the host wait, and the copies to the device."""

    def __init__(self, monkeypatch):
        self.waits, self.uploads = 0, 0
        perform = simulated_cuda.perform

        def counting(function, arguments, options):
            asynchronous = bool(options.get("non_blocking"))
            if function is TO_COPY and str(options.get("device")).startswith("cuda"):
                upload = not isinstance(arguments[0], SIMULATED)
                self.uploads += upload
                self.waits += upload and not asynchronous
            elif function is TO_COPY and isinstance(arguments[0], SIMULATED) and options.get("device"):
                self.waits += not asynchronous
            self.waits += function in simulated_cuda.SYNCS
            return perform(function, arguments, options)

        monkeypatch.setattr(simulated_cuda, "perform", counting)


def test_text_is_captured_again_after_the_cache_has_grown(vocabulary, monkeypatch):
    for module in (network, decode_batch, text_loop):
        monkeypatch.setattr(module, "CACHE_GROWTH", 8)
    grammar = Grammar(vocabulary, skip=ALL_BUT_ONE, then_lyrics=True)
    rows = [TextRow([1, 2, 3 + i], i, grammar, [1, 2], max_lyrics=18) for i in range(2)]
    replays, replay = [], simulated_cuda.Graph.replay
    monkeypatch.setattr(simulated_cuda.Graph, "replay", lambda graph: replays.append(graph) or replay(graph))
    answers = []
    with simulated_cuda.simulated_cuda() as device:
        there = tiny_planner.network(tiny_planner.config_of(vocabulary)).to(device)
        for graphs in (False, True):
            assert not replays
            planner = Planner(there, vocabulary, Resident(device), graphs=graphs)
            answers.append(generate_tokens(planner, rows, TokenSampling(guidance=2.0), "write"))
    assert answers[0] == answers[1] and max(map(len, answers[0])) > 20
    assert len(set(replays)) >= 2 and len(replays) >= 6


def test_text_waits_once_per_token_of_all_rows(vocabulary, monkeypatch):
    forwards, forward = [], PlannerNetwork.forward
    monkeypatch.setattr(PlannerNetwork, "forward", lambda *args: forwards.append(args) or forward(*args))
    traffic, grammar = Traffic(monkeypatch), Grammar(vocabulary, skip=ALL_BUT_ONE, then_lyrics=True)
    with simulated_cuda.simulated_cuda() as device:
        there = tiny_planner.network(tiny_planner.config_of(vocabulary)).to(device)
        planner = Planner(there, vocabulary, Resident(device), graphs=False)  # a replay calls no forward
        counts = [(0, traffic.waits, traffic.uploads)]
        for lyrics in (2, 10):
            rows = [TextRow([1, 2, 3 + i], i, grammar, [1, 2], max_lyrics=lyrics) for i in range(2)]
            generate_tokens(planner, rows, TokenSampling(guidance=2.0), "write")
            counts.append((len(forwards), traffic.waits, traffic.uploads))
    short, long = ([after[i] - before[i] for i in range(3)] for before, after in zip(counts, counts[1:], strict=False))
    more, waits, uploads = (much - little for little, much in zip(short, long, strict=True))
    assert more >= 6 and waits == uploads == more
