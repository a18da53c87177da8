"""What a node shows while it runs, as a browser hears of it: pictures and texts over the websocket."""

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

from .graph import load_workflow, to_prompt, with_inputs
from .server import REPO, ComfyServer

PICTURE, TEXT = 1, 3  # kinds of binary message


def heard(server: ComfyServer, prompt: dict[str, dict]) -> list[tuple[int, bytes]]:
    """The binary messages of one run: kind and content."""

    async def listen() -> list[tuple[int, bytes]]:
        found = []
        address = f"ws://127.0.0.1:{server.port}/ws?clientId=listener"
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
            prompt_id = await asyncio.to_thread(server.queue, prompt, client_id="listener")
            while True:
                message = await asyncio.wait_for(socket.receive(), 120)
                if message.type == aiohttp.WSMsgType.BINARY:
                    found.append((struct.unpack(">I", message.data[:4])[0], message.data[4:]))
                elif message.type == aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    data = event["data"]
                    if event["type"] == "executing" and data["node"] is None and data["prompt_id"] == prompt_id:
                        return found

    with ThreadPoolExecutor(1) as pool:  # the browser tests leave a running event loop in this thread
        return pool.submit(asyncio.run, listen()).result()


def pictures(messages: list[tuple[int, bytes]]) -> list[np.ndarray]:
    return [np.asarray(Image.open(io.BytesIO(data[4:]))) for kind, data in messages if kind == PICTURE]


@pytest.mark.parametrize(
    ("workflow", "sampler"), [("text_to_music", "AS15_Sample"), ("native_ksampler", "KSampler")], ids=lambda name: name
)
def test_the_song_takes_shape(server: ComfyServer, workflow: str, sampler: str) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / f"{workflow}.json"), server.object_info())
    prompt = with_inputs(prompt, "AS15_Song", duration=6.0, caption="a preview")
    shown = pictures(heard(server, with_inputs(prompt, sampler, steps=5, seed=51)))
    assert len(shown) == 5
    assert all(picture.shape == (192, 512, 3) for picture in shown)
    assert all(picture.std() > 10 for picture in shown)
    assert (np.abs(shown[0].astype(int) - shown[-1]) > 30).mean() > 0.05


def test_a_note_stands_on_the_node_that_made_it(server: ComfyServer) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / "text_to_music.json"), server.object_info())
    prompt = with_inputs(with_inputs(prompt, "AS15_Song", duration=1.0), "AS15_Sample", steps=1)
    server.play(prompt)
    messages = heard(server, with_inputs(prompt, "AS15_LoadModel", variant="sft"))
    assert any(kind == TEXT and b"a miniature" in data for kind, data in messages)


def test_where_lyrics_are_cut_stands_on_the_node(server: ComfyServer) -> None:
    prompt = to_prompt(load_workflow(REPO / "workflows" / "text_to_music.json"), server.object_info())
    prompt = with_inputs(prompt, "AS15_Song", duration=1.0, lyrics="[Verse]\n" + "zxqv jkwp\n" * 1500)
    texts = [data.decode(errors="replace") for kind, data in heard(server, prompt) if kind == TEXT]
    assert any("they are cut after" in text for text in texts), texts
