"""HTTP done properly: one request, its redirects, retries and deadline; the threads that wait."""
