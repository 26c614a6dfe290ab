"""The tables of the papers: methods, protocol, published figures and reports of `papers.py`."""
