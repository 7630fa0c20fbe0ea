"""What a dataset shows of itself."""

import json

import pytest

from nevermined_fl.errors import SettingsError
from nevermined_fl.marketplace.datasets import describe

CANARY = "7313.3717"


def write(folder, text):
    file = folder / "patients.csv"
    file.write_text(text)
    return file


def table(folder):
    rows = [f"{30 + n},{n / 7:.6f},Zoe-{n}" for n in range(40)]
    return write(folder, "\n".join(["age,level,name", *rows, f"61,{CANARY},Ada"]) + "\n")


def test_columns_types_rows_and_digest_are_published(tmp_path):
    found = describe(table(tmp_path))
    assert [(c.name, c.dtype) for c in found.schema.columns] == [
        ("age", "int64"),
        ("level", "float64"),
        ("name", "string"),
    ]
    assert found.schema.rows == 41
    assert (found.file.name, found.file.size) == ("patients.csv", (tmp_path / "patients.csv").stat().st_size)
    assert len(found.file.sha256) == 64


def test_no_value_of_the_data_is_in_the_mock_rows(tmp_path):
    file = table(tmp_path)
    shown = json.dumps(describe(file).sample["rows"])
    assert CANARY not in shown
    assert "Zoe" not in shown
    assert "Ada" not in shown
    levels = {line.split(",")[1] for line in file.read_text().splitlines()[1:]}
    assert not [level for level in levels if len(level) > 4 and level in shown]


def test_mock_numbers_lie_in_the_range_of_most_values_and_an_outlier_does_not_widen_it(tmp_path):
    rows = describe(table(tmp_path), mock_rows=50).sample["rows"]
    assert all(20 <= row[0] <= 70 and isinstance(row[0], int) for row in rows)
    assert all(0 <= row[1] <= 6 for row in rows)
    assert len({row[1] for row in rows}) > 5


def test_mock_values_do_not_depend_on_single_rows(tmp_path):
    first = describe(table(tmp_path)).sample
    lines = (tmp_path / "patients.csv").read_text().splitlines()
    shuffled = write(tmp_path, "\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    assert describe(shuffled).sample == first


def test_a_constant_column_shows_a_range_around_it(tmp_path):
    rows = describe(write(tmp_path, "a,b\n0,250\n0,250\n"), mock_rows=20).sample["rows"]
    assert all(0 <= a <= 1 and 200 <= b <= 300 for a, b in rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a header and at least one row"),
        ("a,b\n", "a header and at least one row"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells where the header has 2"),
        ("a,a\n1,2\n", "name each"),
        ("a,\n1,2\n", "name each"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_line(tmp_path, text, said):
    with pytest.raises(SettingsError, match=said):
        describe(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no file"):
        describe(tmp_path / "absent.csv")


def test_numbers_that_are_not_finite_make_a_column_of_texts(tmp_path):
    found = describe(write(tmp_path, "a\n1\nnan\n"))
    assert found.schema.columns[0].dtype == "string"
    assert found.sample["rows"][0] == ["text-1"]
