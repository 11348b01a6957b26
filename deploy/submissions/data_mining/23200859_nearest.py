def nearest(point, centres):
    distances = [sum((a - b) ** 2 for a, b in zip(point, centre, strict=True)) for centre in centres]
    return distances.index(min(distances))
