"""The configuration keys ``data.*``."""

from dataclasses import dataclass

from latentscale.decoding.decoder import DECODERS
from latentscale.settings import setting


@dataclass
class DataSettings:
    name: str = setting(
        "digits", "digits (bundled), clusters (points of four Gaussians, generated), or shards for data.path"
    )
    path: str = setting(
        "",
        "folder of shards with its dataset.json, or its URL: s3://BUCKET/KEY, gs://…, http(s)://…, file://…",
        may_change=True,
    )
    mode: str = setting(
        "indexed",
        "streaming: shards are drawn at random and read through once, where not even data.cache_bytes hold them;"
        " it promises less, see docs/data.md",
        choices=("indexed", "streaming"),
    )
    cache_folder: str = setting(
        "", "of a node, for shards from URLs; empty: shards/ in the user's cache folder", may_change=True
    )
    cache_bytes: int = setting(
        64 * 2**30,
        "what data.cache_folder may hold; the shards used longest ago make room",
        unit="bytes",
        minimum=1,
        may_change=True,
    )
    retry_seconds: float = setting(
        240.0,
        "a URL that fails is tried again for so long; less than distributed.timeout_seconds",
        unit="seconds",
        minimum=0,
        may_change=True,
    )
    stall_seconds: float = setting(
        60.0,
        "a transfer without a byte for so long has failed; streaming: without a whole range of 4 MiB",
        unit="seconds",
        above=0,
        may_change=True,
    )
    shape: list[int] = setting(
        help="[channels, height, width] the data must have ([2] for points); empty takes the data's own",
        factory=list,
        minimum=1,
    )
    label_probabilities: list[float] = setting(
        factory=list,
        help="resample the reals, with replacement, so that their labels have these probabilities, e.g. "
        "[0.4,0.3,0.2,0.1]; empty: each sample once an epoch",
        minimum=0,
        maximum=1,
    )
    workers: int = setting(
        0,
        "decoding processes of each training process; 0 is one background thread; streaming: threads",
        minimum=0,
        may_change=True,
    )
    prefetch_steps: int = setting(
        4, "batches made ready ahead; tiny ones come in blocks of up to 8", unit="steps", minimum=1, may_change=True
    )
    shuffle_window_images: int = setting(
        8192,
        "samples are shuffled within windows of this size over permuted shards",
        unit="images",
        minimum=1,
    )
    horizontal_flip: bool = setting(False, "mirror every second image on average, drawn by the seed: twice the images")
    decoder: str = setting(
        "auto",
        "auto: simplejpeg and imagecodecs where installed, else Pillow; fast: these or refuse; pillow: Pillow alone",
        choices=DECODERS,
        may_change=True,
    )
    on_error: str = setting(
        "fail",
        "an unreadable sample: fail ends the run, skip puts another one in its place, drawn by the seed",
        choices=("fail", "skip"),
        may_change=True,
    )
    max_errors: int = setting(
        100,
        "data.on_error=skip: stop when more samples than this cannot be read",
        unit="samples",
        minimum=0,
        may_change=True,
    )
