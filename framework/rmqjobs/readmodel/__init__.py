"""The read model: lists, counts and charts of what the journal tells, in one SQLite file that can be thrown away. Floor 6.

`follower` fills it, `queries` answers, `filters` reads what people type. Nothing in it is a truth of its own: delete the file,
and it is made again from the stream. Records may come in any order, and more than once.
"""
