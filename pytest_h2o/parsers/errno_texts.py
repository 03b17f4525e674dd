"""What systems say of the commonest errors, in the languages that they are set to."""

from __future__ import annotations

import errno
import os

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


def errno_texts() -> list[str]:
    """All in lower case, and those of every error number in English."""
    english = [os.strerror(number).lower() for number in sorted(errno.errorcode)]
    return [*(text for text in english if " " in text), *TRANSLATED]
