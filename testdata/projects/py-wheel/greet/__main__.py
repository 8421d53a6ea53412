import getpass
import sys

from tabulate import tabulate

print(tabulate([["hello", sys.argv[1]], ["user", getpass.getuser()]], tablefmt="plain"))
