from .collect import collect_report as collect_report
from .page import to_page as to_page
