"""The configuration keys ``data.*``."""

from dataclasses import dataclass

from latentscale.decoding.decoder import DECODERS
from latentscale.settings import LONGEST_SECONDS, setting


@dataclass
class DataSettings:
    name: str = setting(
        "digits",
        "digits (bundled images), clusters (points of four Gaussians) or shards (at data.path); digits and clusters are"
        " written to the cache on first use (clusters: about 270 MB, some seconds)",
    )
    path: str = setting(
        "",
        "folder of shards, of images, or of idx files, a .zip or .tar of images, or the URL of shards: s3://BUCKET/KEY,"
        " gs://…, http(s)://…, file://…; implies data.name=shards",
        may_change=True,
        is_path=True,
        may_be_url=True,
    )
    resolution: int = setting(
        0,
        "where data.path holds images instead of shards: side to which they are cropped and resized when they are built"
        " into shards; 0: a power of two up to 256 that most of them reach",
        unit="pixels",
        minimum=0,
        maximum=8192,
        may_change=True,
    )
    mode: str = setting(
        "indexed",
        "indexed, or streaming: read randomly drawn shards from beginning to end, for data too large for"
        " data.cache_bytes; streaming guarantees less, see docs/data.md",
        choices=("indexed", "streaming"),
    )
    cache_folder: str = setting(
        "",
        "each node's folder for shards from URLs; empty: shards/ in the user's cache folder",
        may_change=True,
        is_path=True,
    )
    cache_bytes: int = setting(
        64 * 2**30,
        "size limit of data.cache_folder; the least recently used shards are deleted first",
        unit="bytes",
        minimum=1,
        may_change=True,
    )
    retry_seconds: float = setting(
        240.0,
        "how long to retry a failing URL; must be less than distributed.timeout_seconds",
        unit="seconds",
        minimum=0,
        maximum=LONGEST_SECONDS,
        may_change=True,
    )
    stall_seconds: float = setting(
        60.0,
        "a transfer fails after this long without a byte; in streaming, without a complete range of 4 MiB",
        unit="seconds",
        above=0,
        maximum=LONGEST_SECONDS,
        may_change=True,
    )
    shape: list[int] = setting(
        help="[channels, height, width] of the samples ([2] for points); empty: the shape of the data",
        factory=list,
        minimum=1,
    )
    label_probabilities: list[float] = setting(
        factory=list,
        help="resample the reals with replacement so that their labels have these probabilities, e.g. "
        "[0.4,0.3,0.2,0.1]; empty: each sample once per epoch",
        minimum=0,
        maximum=1,
    )
    workers: int = setting(
        0,
        "decoding processes per training process; 0: one background thread; in streaming, threads instead of processes",
        minimum=0,
        may_change=True,
    )
    prefetch_steps: int = setting(
        4,
        "batches to prepare ahead of the training loop; tiny batches are prepared in blocks of up to 8",
        unit="steps",
        minimum=1,
        may_change=True,
    )
    shuffle_window_images: int = setting(
        8192,
        "size of the windows within which samples are shuffled, after the shards are permuted",
        unit="images",
        minimum=1,
    )
    horizontal_flip: bool = setting(False, "mirror each image with probability 1/2, drawn from the seed")
    decoder: str = setting(
        "auto",
        "auto: simplejpeg and imagecodecs where installed, else Pillow; fast: require both; pillow: Pillow only",
        choices=DECODERS,
        may_change=True,
    )
    on_error: str = setting(
        "fail",
        "if a sample is unreadable, fail ends the run and skip replaces it with another sample, drawn from the seed",
        choices=("fail", "skip"),
        may_change=True,
    )
    max_errors: int = setting(
        100,
        "with data.on_error=skip, end the run when more samples than this are unreadable",
        unit="samples",
        minimum=0,
        may_change=True,
    )
