"""The log on disk: a ladder, each rung knowing the ones below.

log_directory     the data folder: lock, topics, partitions         topic_store   their files
partition_log     one partition: read, trim, retention, compaction  log_writer    append, sync, checkpoint
recovery          opening a partition after anything                compaction    the last record of each key
log_reader        byte ranges of whole batches, offsets by time     retention     which segments go
segment           one file of batches and its indexes               producer_state  duplicates
scan              what a good batch is, and where the next one lies
offset_index, time_index, checkpoint                                verify, checker, repair   without a broker
disk              the port to the file system                       reserve       headroom
"""
