"""A local MLHub: the API that the switched-off service had, over archives on disk and the sample.

`mlhubfs.server.run.LocalServer` is the way in. This room imports `mlhubfs.errors` and nothing else
of the project, so that the client's rooms are tested against a server that shares no code with
them. Starlette and uvicorn come with the extra `server` and are imported when a server is made.
"""
