"""The tests; folders mirror the packages, names are sentences.

test_architecture   arrows, pure modules, sizes, names      test_launcher   ./murmur itself
conftest            no process outlives the run; a fixture that fails a test that blocks its loop
"""
