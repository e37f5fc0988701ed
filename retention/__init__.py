"""What is kept how long, what goes, and the purge that carries it out. (spec 6.5)"""
