"""Memory that a service took for a while and need not keep."""


def give_back() -> None:
    """Give back to the system what was freed; Arrow and the C library would keep it until the end."""
    import psutil
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
    psutil.heap_trim()
