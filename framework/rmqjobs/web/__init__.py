"""The HTTP API: `rmqjobs web`. Floor 7, beside the command line, from the same rooms.

`site` holds what a running server has, `guard` decides who comes in, and one file for each noun has its routes. Imported only
where a server runs: it needs `pip install 'rmqjobs[web]'`.
"""
