from .records import write_records as write_records
