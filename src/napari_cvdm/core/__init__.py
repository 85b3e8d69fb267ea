"""Images, optics, requests, results and the numbers that all of them share; knows no task and no network."""
