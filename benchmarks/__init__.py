"""Benchmarks of speed, compared with the hardware's limit and with the original's design.

python -m benchmarks            # those that `make bench` runs, in under ten minutes on two cores
python -m benchmarks.encoder    # one

decode, encoder, tile, growth, search                        run by `make bench`
events, feed, golden_large, processes, scaling, tick, verify run alone
peer, peer_tile                                              the original's design, rebuilt for comparison
chip_server, feed_gil, feed_table, measure, networks         used by the others
"""
