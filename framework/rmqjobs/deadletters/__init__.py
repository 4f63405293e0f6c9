"""Reviewing dead letters, straight on their queues. Floor 6.

`selection` says which ones, `review` looks at them and acts. The queue is the truth: nothing is copied anywhere.
"""
