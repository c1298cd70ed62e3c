"""Other libraries as contenders, as their documentation says that they are used.

Each module is imported only in the process that measures it, in an environment that has the
library, attrs and psycopg, and not squidmesh.
"""
