"""The kernel's side: what the tree looks like as paths, handles, stat structures and errnos.

The only room that names fusepy, mfusepy or libfuse.
"""
