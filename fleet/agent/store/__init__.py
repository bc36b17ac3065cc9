"""The model store of a host: files named by their SHA-256, fetched once, shared by every worker on the machine.

Layout under COMFYPLANE_STORE_DIR (a local disk; several processes and containers may share it):

    sha256/ab/abcdef…    whole files, checked before they appear here, read-only
    partial/<sha>.part   files under way, at their full size from the first byte
    partial/<sha>.lock   held by whoever fetches that file; the others wait for it
    holders/<id>         one per process, locked while it lives
    ledger.sqlite3       what is here, what is promised, who uses it, what was fetched

Why so. Space is given by one IMMEDIATE transaction of the ledger, so that eight processes cannot promise the same bytes twice;
a file counts with its full size from the moment it is promised, and is only forgotten after its bytes are gone, so that what
lies on the disk is never more than the ledger says and the ledger never says more than the cap. Who is alive is told by a file lock and
not by process ids: the kernel drops the lock of whatever dies, also by SIGKILL, and it means the same in containers that share
the directory but not their process ids. Everything else is put right from the disk when a process opens the store.
"""
