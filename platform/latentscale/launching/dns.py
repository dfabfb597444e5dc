"""Waiting until DNS resolves the host name of node 0."""

import socket
import time


def wait_for_hostname(name: str, timeout_seconds: float, retry_seconds: float = 1.0) -> float:
    """Wait until a host name resolves to an address: a pod's name does once the pod is scheduled.

    Returns:
        seconds waited.

    Raises:
        TimeoutError: saying what to check.
    """
    began = time.monotonic()
    while True:
        try:
            socket.getaddrinfo(name, None)
        except OSError as error:
            waited = time.monotonic() - began
            if waited >= timeout_seconds:
                raise TimeoutError(
                    f"the host name {name} of node 0 did not resolve within {timeout_seconds:g} s ({error.strerror}):"
                    " check that its pod exists, and that a headless service with publishNotReadyAddresses covers the"
                    " pods' subdomain"
                ) from None
            time.sleep(min(retry_seconds, timeout_seconds - waited))
            continue
        return time.monotonic() - began
