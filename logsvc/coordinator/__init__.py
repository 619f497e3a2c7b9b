"""The group coordinator: membership, committed offsets, failed offsets and dead letters, as one pure state machine.

    coordinator   handle(event, now) -> records, reply, effects;  replay(record)
    membership    joining, heartbeats, leaving                    members      sessions; who leaves and who dies
    group         the state of one group; targets, reconciling    group_admin  reset, delete, configure, resume
    assignors     who should read what                            offsets      what is read back, what is due
    commits       progress and failures                           suspects     records that kill their consumer
    flood         pausing while everything fails                  deadletter   what a letter says, how it is recognised
    redrive       putting letters back: redrive, redrive_step, redriven
    events        what goes in and out                            views        what operators see
    state_log     types, keys and values of the records           timers       deadlines by key
    limits        every bound, with its default

No module here does input or output, or asks for the time.
"""
