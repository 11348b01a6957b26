"""Crawling web sites: crawlers fetch, processors extract, a keeper decides and keeps the index."""
