"""What systems say of the commonest errors, in the languages that they are set to."""

from __future__ import annotations

import errno
import gettext
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

# As the message catalogues of glibc have them: no such file, no permission, no memory, no space,
# killed, segmentation fault.
TRANSLATED = (
    "datei oder verzeichnis nicht gefunden", "keine berechtigung", "nicht genügend hauptspeicher",
    "kein speicherplatz mehr", "getötet", "speicherzugriffsfehler", "abgebrochen",
    "aucun fichier ou dossier", "permission non accordée", "ne peut allouer de la mémoire",
    "aucun espace disponible", "processus arrêté", "erreur de segmentation",
    "no existe el fichero", "no existe el archivo", "permiso denegado",
    "no se pudo asignar memoria", "no queda espacio", "violación de segmento",
    "file o directory non esistente", "permesso negato", "impossibile allocare memoria",
    "spazio esaurito", "ucciso", "errore di segmentazione",
    "arquivo ou diretório inexistente", "ficheiro ou directoria inexistente", "permissão negada",
    "não foi possível alocar memória", "não há espaço", "falha de segmentação",
    "нет такого файла", "отказано в доступе", "не удалось выделить память",
    "невозможно выделить память", "не осталось свободного места", "убито",
    "ошибка сегментирования",
    "没有那个文件或目录", "权限不够", "无法分配内存", "设备上没有空间", "已杀死", "段错误",
    "沒有此一檔案或目錄", "拒絕不符權限的操作", "無法配置記憶體", "裝置上已無多餘空間",
    "そのようなファイルやディレクトリはありません", "許可がありません", "メモリを確保できません",
    "空き領域がありません", "強制終了",
    "그런 파일이나 디렉터리가 없습니다", "허가 거부", "메모리를 할당할 수 없습니다",
    "장치에 남은 공간이 없음", "죽었음",
    "nie ma takiego pliku", "brak dostępu", "böyle bir dosya ya da dizin yok", "erişim engellendi",
)  # fmt: skip


# Messages that name a cause by themselves, as programs and shells print them.
MESSAGES = (
    "No such file or directory", "Permission denied", "Operation not permitted",
    "Cannot allocate memory", "No space left on device", "Input/output error", "Exec format error",
    "No such device", "No such device or address", "Disk quota exceeded", "Bad address",
    "Device or resource busy", "Resource temporarily unavailable", "Connection refused",
    "Connection timed out", "File too large", "Too many open files", "Text file busy",
    "Argument list too long", "Read-only file system", "Killed", "Segmentation fault", "Aborted",
    "Bus error", "Illegal instruction", "Floating point exception",
    "cannot open shared object file",
)  # fmt: skip
# Those after which nothing of a program runs on.
FATAL = MESSAGES[MESSAGES.index("Killed") : MESSAGES.index("cannot open shared object file")]
TRANSLATED_FATAL = (
    "getötet", "speicherzugriffsfehler", "abgebrochen", "processus arrêté",
    "erreur de segmentation", "violación de segmento", "ucciso", "errore di segmentazione",
    "falha de segmentação", "убито", "ошибка сегментирования", "已杀死", "段错误", "已中止",
    "강제 종료", "세그멘테이션 오류", "セグメンテーション違反", "強制終了", "segmenteringsfel",
    "naruszenie ochrony pamięci", "segmentatiefout", "unicestwiony", "geëlimineerd", "morto",
    "terminado (killed)", "abortado", "violació de segment", "abandon",
    "parçalama arızası", "süreç durduruldu", "kilőve", "szegmentálási hiba", "zabit",
    "neoprávněný přístup do paměti", "dræbt", "lagersegmentfejl", "dödad", "drept",
    "minnesegmentfeil", "tapettu", "muistialueen ylitys", "вбито", "помилка адресування",
    "убит", "аварийный останов", "σφάλμα κατάτμησης", "omorât", "eroare de segmentare",
    "lỗi phân đoạn", "已放弃", "已终止", "已砍掉", "記憶體區段錯誤", "中止", "죽었음", "중지됨",
)  # fmt: skip
CATALOGUES = Path("/usr/share/locale")
MOST_BYTES = 4 << 20


def errno_texts(catalogues: Path = CATALOGUES) -> list[str]:
    """All in lower case: those of every error number in the system's language, of the commonest in
    all languages that are known here or installed.
    """
    own = [os.strerror(number).lower() for number in sorted(errno.errorcode)]
    found = [text for text in own if " " in text]
    found += TRANSLATED
    for path in sorted(catalogues.glob("*/LC_MESSAGES/libc.mo")):
        found += _translated(path)
    return list(dict.fromkeys(found))


def fatal_texts(catalogues: Path = CATALOGUES) -> set[str]:
    """What shells say, in lower case and in all languages, of a program that was ended."""
    found = {text.lower() for text in FATAL} | set(TRANSLATED_FATAL)
    for path in sorted(catalogues.glob("*/LC_MESSAGES/libc.mo")):
        found.update(_translated(path, FATAL))
    return found


def _translated(path: Path, messages: Sequence[str] = MESSAGES) -> Iterator[str]:
    """Messages in the language of a catalogue; none of one that cannot be read."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return
        with path.open("rb") as file:
            catalogue = gettext.GNUTranslations(file)
    except (OSError, ValueError, LookupError, struct.error):
        return
    for message in messages:
        text = catalogue.gettext(message).lower()
        if text and text != message.lower():
            yield text
