"""The dashboard and the HTTP API: `rmqjobs web`. Floor 7, below the command line, from the same rooms.

`site` holds what a running server has, `guard` decides who comes in, and one file for each noun has its API.
`pages` and `deeds` are the dashboard: what it shows, and what its buttons do. Imported only
where a server runs: it needs `pip install 'rmqjobs[web]'`.
"""
