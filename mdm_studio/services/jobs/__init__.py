"""Jobs: work in the background, each in a folder of its own that a separate process drives.

`states` judges what a job is doing from its files, `driver` runs one, `worker` is the process that does so out of sight, and
`board` is what a front end holds. The folder is the truth: there is no daemon, and any number of front ends see the same.
Nothing here loads PyTorch before a job's turn has come.
"""
