"""Waiting until the host of node 0 has a name."""

import socket
import time


def wait_for_name(name: str, timeout_seconds: float, retry_seconds: float = 1.0) -> float:
    """Wait until a host name has an address: a pod's name has one once it is scheduled.

    Returns:
        seconds waited.

    Raises:
        TimeoutError: saying what to look at.
    """
    began = time.monotonic()
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            waited = time.monotonic() - began
            if waited >= timeout_seconds:
                raise TimeoutError(
                    f"the name {name} of node 0 has no address after {timeout_seconds:g} s ({error.strerror}): is its"
                    " pod there, and a headless service of the pods' subdomain with publishNotReadyAddresses?"
                ) from None
            time.sleep(min(retry_seconds, timeout_seconds - waited))
            continue
        return time.monotonic() - began
