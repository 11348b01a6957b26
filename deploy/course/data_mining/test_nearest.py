import nearest


def test_one_centre_is_the_nearest():
    assert nearest.nearest((3, 4), [(0, 0)]) == 0


def test_the_nearest_of_three():
    assert nearest.nearest((1, 1), [(9, 9), (0, 1), (5, 5)]) == 1


def test_the_first_where_two_are_as_near():
    assert nearest.nearest((0, 0), [(1, 0), (0, 1)]) == 0
