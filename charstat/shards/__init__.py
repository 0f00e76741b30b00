"""Builds larger than one machine's memory: the text in shards, each counted on its own, and their tables merged by ranges of identities.

    scan      every file is read once: text in pieces on disk, and how often each character occurs    -> the alphabet      scan.py
    history   what the shards after this one must know of it: some hundred characters                 -> their histories   history.py
    classes   word classes, of all shards' words together, and the topic's state at the start of each                    classes.py
    count     each shard, with its history, by the backend of counting.py, into a model directory of its own               count.py
    words     the shards' vocabularies, merged                                                        -> word ids          words.py
    reduce    one range of identities of one context, from all shards' tables                                              reduce.py
    assemble  the ranges, one after another, into one model directory                                                      assemble.py

build.py drives these steps with dask (cluster.py), whose scheduler, retries and limits it relies on; command.py is the command. All that
tasks leave lies in a work directory that every worker sees (files.py): a lost worker costs its running task, and a build that failed
goes on from what is there.
"""
