"""What a task is: kinds of task as data, and the record of one."""
