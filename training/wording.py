"""Captions and lyrics in free wording for composed pieces, so that a model also follows words that it hardly knows."""

from __future__ import annotations

import numpy as np

from .captions import pick
from .piece import Piece
from .styles import INSTRUMENT_NAMES, STYLES

FREE_LYRICS = 5_000_000  # the first seed whose pieces have lyrics in free wording

GENRES = """
ambient, synthwave, bossa nova, grunge, trap, gospel, bluegrass, dubstep, shoegaze, trip hop, post-rock, metal,
flamenco, reggaeton, ska, swing, chiptune, new age, opera, soundtrack, indie folk, dream pop, drill, garage, afrobeat,
klezmer, city pop, vaporwave, hardcore, soul ballad, country waltz, sea shanty, lullaby, anthem, r&b, hip hop, samba,
tango
"""
WORDS = """
cinematic, lush, raw, hazy, glossy, distorted, spacious, intimate, gritty, hypnotic, euphoric, bittersweet, eerie,
triumphant, smoky, crisp, vintage, futuristic, acoustic, orchestral, minimal, heavy, airy, crunchy, wobbly,
shimmering, laid-back, driving, swelling, haunting, playful, lo-fi, polished, live, late-night, summer, winter, ocean,
desert, neon, vinyl crackle, tape hiss, big chorus, slow build, female vocal, male vocal, falsetto, choir, saxophone,
violin, cello, harp, 808s, handclaps, slap bass, fuzzy guitar, muted trumpet, upright bass, breakbeat, sidechain,
arpeggiated synth, reverb, delay
"""
SUNG_WORDS = """
a about above again air all alone always and angel another any are arms around away baby back bad be beat beautiful
because bed been before begin believe below better between big bird black bleed blind blood blow blue body bone book
born both bottle boy bread bright broken build burn but butterfly call candle castle catch chain change child choose
clear climb clock close cloud coffee cold color cool crown cruel cry cut danger dark daughter day dead deep diamond
distant do dog doubt down drift drop drown dry dust each early east easy echo edge eleven empty end enough even ever
every eyes face fade faith far fast father feel feet fever field fight find fire first fish flame flower fly follow
fool forever forget free friend from frozen full game garden ghost girl give glass glow gold gone good green grow
guitar gypsy half hand happy hard heal hear heaven her here hide high him hollow honey hope house how hum hundred
hungry I ice if inside island jungle just key kind king kiss know lady last laugh lay leave left letter lie life lift
like lion lips listen little live long look lose loud love lucky machine magic make maybe memory midnight mile million
mind minute mirror money moon more mother mountain mouth move music must name near need new no notice north nothing
now number of old one only or other our out outside over paper paradise past peace people perfect picture pieces play
please pocket poison pray pretty pull queen question quick red remain ribbon ride right rise rock roll roof room rose
round sail salt sand save say secret seven shake shallow she shelter shine ship shoe shore shoulder show side silence
simple since sister skin sky sleepy slow small smile smoke snow so soldier someone soon sorrow soul sound south spell
spirit spring stand steal step still stone stop storm story street strong such sugar sun sweet swim table take talk
taste tell tender thank them there thing think thousand throw thunder tie time to today together tomorrow tonight too
touch tower tree trouble true trust try turn twelve two umbrella up us valley velvet very violet wait walk wall want
war warm was wash wave way we weather week well west what wheel where whisper white who why wide wild will wine wing
wire wish with woman wonder wood word work world write wrong year yellow yesterday you young zero
""".split()
PHRASES = (
    "music for {a} {b} evenings",
    "a song about {a} roads and {b} skies",
    "something {a}, something {b}, in the spirit of {genre}",
    "{genre} with a {a} feel and {b} textures",
    "I want {a} {genre} that sounds {b}",
    "{a}, {b}, {genre}, {c}",
    "{genre} / {a} / {b} / {c}",
    "{genre}",
    "the kind of {genre} you hear at night: {a}, {b}, {c}",
    "{a} {genre}, {b}, {c}, studio quality",
    "an old film with {a} {genre} in the background",
    "{a} and {b}",
)


def free_caption(piece: Piece, rng: np.random.Generator) -> str:
    """Return a caption in other words than the composer's. Half of them name the style or an instrument."""
    genre = pick(rng, STYLES[piece.style].names) if rng.random() < 0.4 else pick(rng, _items(GENRES))
    a, b, c = (str(word) for word in rng.choice(_items(WORDS), 3, replace=False))
    if rng.random() < 0.3:
        c = pick(rng, INSTRUMENT_NAMES[pick(rng, list(piece.instruments.values()))])
    text = pick(rng, PHRASES).format(a=a, b=b, c=c, genre=genre)
    return text if rng.random() < 0.5 else text[0].upper() + text[1:]


def free_lyrics(lyrics: str, seed: int) -> str:
    """Return lyrics with random words in each line. Half of the repeated lines stay repeated."""
    rng = np.random.default_rng([seed, 1])
    new: dict[str, str] = {}
    lines = []
    for line in lyrics.splitlines():
        if line and not line.startswith("[") and (line not in new or rng.random() < 0.5):
            text = " ".join(SUNG_WORDS[i] for i in rng.integers(0, len(SUNG_WORDS), rng.integers(3, 8)))
            new[line] = text[0].upper() + text[1:]
        lines.append(new.get(line, line))
    return "\n".join(lines)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]
