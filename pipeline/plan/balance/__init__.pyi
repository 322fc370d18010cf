from .solution import Balanced as Balanced
from .solution import balance as balance
from .solution import read_balance as read_balance
from .solution import write_balance as write_balance
