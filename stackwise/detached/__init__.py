"""Runs in processes of their own, which outlive the notebook that launched them.

    launch.py     launches and goes on with runs, from a notebook or a terminal; warm.py keeps one
                  process ready for the first of them
    supervisor.py waits for its turn, starts the process that trains, and says how that ended
    trainer.py    trains; device_queue.py says whose turn it is
    job.py        what is handed from each to the next

The run folder is all that connects them with their readers (`stackwise/runs/`).
"""
