"""Progress bars, previews and notes of running nodes, as sent over the websocket."""

from __future__ import annotations

import asyncio
import io
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import numpy as np
import pytest
from PIL import Image

from .graph import find, load_workflow, to_prompt, with_all, with_inputs
from .server import REPO, ComfyServer
from .test_codes import coded_song

PICTURE = 1  # kind of binary message


def messages_of(server: ComfyServer, prompt: dict[str, dict]) -> list[dict | bytes]:
    """Run a prompt and return the websocket messages of the run."""

    async def listen() -> list[dict | bytes]:
        found: list[dict | bytes] = []
        address = f"ws://127.0.0.1:{server.port}/ws?clientId=listener"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            prompt_id = await asyncio.to_thread(server.queue, prompt, client_id="listener")
            while True:  # until the run ends, or nothing comes for two minutes
                message = await asyncio.wait_for(socket.receive(), 120)
                if message.type == aiohttp.WSMsgType.BINARY:
                    found.append(message.data)
                elif message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    found.append(event)
                    data = event["data"]
                    if event["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                        return found

    with ThreadPoolExecutor(1) as pool:  # the browser tests leave a running event loop in this thread
        return pool.submit(asyncio.run, listen()).result()


def notes(messages: list[dict | bytes]) -> list[tuple[str, str]]:
    """Return (node id, text) of the notes of one run."""
    data = (each["data"] for each in messages if isinstance(each, dict) and each["type"] == "acestep.notes")
    return [(each["node"], each["text"]) for each in data]


def binary_messages(server: ComfyServer, prompt: dict[str, dict]) -> list[tuple[int, bytes]]:
    """Run a prompt and return kind and content of its binary messages."""
    binary = [message for message in messages_of(server, prompt) if isinstance(message, bytes)]
    return [(struct.unpack(">I", message[:4])[0], message[4:]) for message in binary]


def pictures(messages: list[tuple[int, bytes]]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data[4:]))) for kind, data in messages if kind == PICTURE]


@pytest.mark.parametrize(
    ("workflow", "sampler"), [("01 Text to music", "AS15_Sample"), ("15 KSampler", "KSampler")], ids=lambda name: name
)
def test_every_step_sends_a_preview(server: ComfyServer, workflow: str, sampler: str) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / f"{workflow}.json"), server.object_info())
    prompt = with_inputs(prompt, "AS15_Song", duration=6.0, caption="a preview")
    shown = pictures(binary_messages(server, with_inputs(prompt, sampler, steps=5, seed=51)))
    assert len(shown) == 5
    assert all(picture.shape == (192, 512, 3) for picture in shown)
    assert all(picture.std() > 10 for picture in shown)
    assert (np.abs(shown[0].astype(int) - shown[-1]) > 30).mean() > 0.05
    if sampler == "AS15_Sample":
        assert not pictures(binary_messages(server, with_inputs(prompt, sampler, steps=5, seed=52, preview="off")))


def test_every_phase_moves_the_bar_of_its_node(server: ComfyServer) -> None:
    """Loading, text encoding, sampling, decoding, audio encoding, and audio codes of more than a minute."""
    prompt = coded_song(server)
    prompt = with_all(with_all(prompt, "AS15_Song", duration=61.0), "AS15_Sample", steps=2, seed=61)
    prompt = with_inputs(prompt, "AS15_LoadModel", variant="turbo")  # used by no other test, so nothing is cached
    decode, load = find(prompt, "AS15_Decode"), find(prompt, "AS15_LoadModel")
    prompt["encode"] = {"class_type": "AS15_EncodeAudio", "inputs": {"vae": [load, 2], "audio": [decode, 0]}}
    prompt["save"] = {
        "class_type": "SaveLatent",
        "inputs": {"samples": ["encode", 0], "filename_prefix": "latents/bar"},
    }
    bars: dict[str, list[tuple[int, int]]] = {}
    for message in messages_of(server, prompt):
        if isinstance(message, dict) and message["type"] == "progress":
            data = message["data"]
            bars.setdefault(data["node"], []).append((data["value"], data["max"]))
    steps = {}
    for node, values in bars.items():
        assert values[-1][0] == values[-1][1], f"the bar of {prompt[node]['class_type']} stops at {values[-1]}"
        steps.setdefault(prompt[node]["class_type"], []).append(values[-1][1])
    assert min(steps.pop("AS15_LoadModel")) > 1
    assert steps == {
        "AS15_Encode": [1],
        "AS15_Sample": [2],
        "AS15_Decode": [4],
        "AS15_EncodeAudio": [4],
        "AS15_AudioCodes": [2],
    }


def test_a_note_is_sent_for_its_node(server: ComfyServer) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    prompt = with_inputs(with_inputs(prompt, "AS15_Song", duration=1.0), "AS15_Sample", steps=1)
    server.play(prompt)
    messages = notes(messages_of(server, with_inputs(prompt, "AS15_LoadModel", variant="sft")))
    assert any("a miniature" in text for _, text in messages), messages


def test_cut_lyrics_are_noted(server: ComfyServer) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / "01 Text to music.json"), server.object_info())
    prompt = with_inputs(prompt, "AS15_Song", duration=1.0, lyrics="[Verse]\n" + "zxqv jkwp\n" * 1500)
    texts = [text for _, text in notes(messages_of(server, prompt))]
    assert any("lyrics:" in text and "too long" in text for text in texts), texts
